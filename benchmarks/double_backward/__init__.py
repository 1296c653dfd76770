# SPDX-License-Identifier: Apache-2.0
"""The stabilised critic as one writes it first, by autograd through autograd: what the benchmarks compare with."""
