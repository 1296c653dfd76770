# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash

help_keystore() {
    cat <<'END'
./qgf keystore DIR [--domain N] [--namespace /NS] [--policy FILE] [--days N]

Makes the keystore of a secured ROS graph (SROS2): an authority, and for every node a key, a certificate and permissions
by config/security/qgf.policy.xml, which allows what the node needs and nothing else. Files that are there are kept, the
permissions are written anew. Without a ROS installation; with one, `ros2 security` reads the same policy.
  --domain N        the one ROS_DOMAIN_ID that is permitted (default: 0)
  --namespace /NS   of the arm, as /left: enclaves and topics lie in it
  --policy FILE     another SROS2 policy
  --days N          how long all of it holds (default: 3650)
See docs/security.md for what to set in the nodes' shells. The ROS wheels come without DDS Security: nodes that are told
to enforce it refuse to start there; take Jazzy or Kilted from their packages.
END
}

command_keystore() {
    prepare "$@"
    exec "$VENV/bin/python" "$ROOT/scripts/keystore.py" "${REST[@]}"
}
