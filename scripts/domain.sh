# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# A ROS_DOMAIN_ID for one run alone, so that tests side by side do not hear each other. Sourced by ./qgf.
# The locks are those of qgf_demo.domain.

# Exports a ROS_DOMAIN_ID from 1 to 101 that no other run on this machine holds, and holds it by a lock for as long as
# this process lives, through exec too. A ROS_DOMAIN_ID that the user has set is kept.
claim_domain() {
    [[ -z ${ROS_DOMAIN_ID:-} ]] || return 0
    local i id file folder=${TMPDIR:-/tmp}
    for ((i = 0; i < 101; i++)); do
        id=$((($$ + i) % 101 + 1)) # runs that start together begin to look at different places
        file="$folder/qgf-domain-$id.lock"
        # Opened for reading, because another user's file in a shared folder may not be opened for writing.
        [[ -e $file ]] || (umask 022 && : >>"$file") 2>/dev/null || continue
        exec {QGF_DOMAIN_LOCK}<"$file" || continue
        if flock -n "$QGF_DOMAIN_LOCK"; then
            export ROS_DOMAIN_ID=$id
            return 0
        fi
        exec {QGF_DOMAIN_LOCK}<&-
    done
    die "all ROS domains from 1 to 101 are held by other runs (locks $folder/qgf-domain-*.lock); end some, or set ROS_DOMAIN_ID"
}
