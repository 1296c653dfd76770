# SPDX-License-Identifier: Apache-2.0
"""How the demo's nodes talk: over the loopback interface alone, and without shared memory."""

from __future__ import annotations

import os
from pathlib import Path

from qgf_core.files import write_atomic

# With ROS_AUTOMATIC_DISCOVERY_RANGE=LOCALHOST the Fast DDS layer makes its transports itself, shared memory among
# them, whatever FASTDDS_BUILTIN_TRANSPORTS says; and a process that is killed leaves its segments in /dev/shm for ever.
# Hence a profile: UDP, bound to 127.0.0.1, no multicast; up to 32 participants are looked for there.
PROFILE = """\
<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns="http://www.eprosima.com">
  <profiles>
    <transport_descriptors>
      <transport_descriptor>
        <transport_id>loopback</transport_id>
        <type>UDPv4</type>
        <maxInitialPeersRange>32</maxInitialPeersRange>
        <interfaceWhiteList><address>127.0.0.1</address></interfaceWhiteList>
      </transport_descriptor>
    </transport_descriptors>
    <participant profile_name="loopback" is_default_profile="true">
      <rtps>
        <useBuiltinTransports>false</useBuiltinTransports>
        <userTransports><transport_id>loopback</transport_id></userTransports>
        <builtin>
          <metatrafficUnicastLocatorList><locator/></metatrafficUnicastLocatorList>
          <initialPeersList><locator><udpv4><address>127.0.0.1</address></udpv4></locator></initialPeersList>
        </builtin>
      </rtps>
    </participant>
  </profiles>
</dds>
"""
# Settings of the user's own that would let other machines in, or keep the nodes from each other.
FOREIGN = (
    "FASTRTPS_DEFAULT_PROFILES_FILE",
    "RMW_FASTRTPS_USE_QOS_FROM_XML",
    "ROS_DISCOVERY_SERVER",
    "ROS_LOCALHOST_ONLY",
    "ROS_NAMESPACE",
    "ROS_STATIC_PEERS",
    "ROS_SUPER_CLIENT",
)


def environment(domain: int, folder: Path) -> dict[str, str]:
    """The environment of a node: ours, but for what concerns DDS.

    :param folder: for the profile and the logs that ROS itself writes.
    :raises QgfError: the profile cannot be written.
    """
    values = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    values |= {"ROS_DOMAIN_ID": str(domain), "ROS_LOG_DIR": str(folder.absolute() / "ros"), "OMP_NUM_THREADS": "1"}
    if not os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps").startswith("rmw_fastrtps"):
        return values | {"ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    profile = folder.absolute() / "fastdds.xml"
    write_atomic(profile, PROFILE.encode())
    return values | {
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",  # what the profile says
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "FASTDDS_BUILTIN_TRANSPORTS": "UDPv4",
    }
