# SPDX-License-Identifier: Apache-2.0
"""The demo: trains, deploys, measures and reports a plain and a stabilised policy."""
