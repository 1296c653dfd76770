# SPDX-License-Identifier: Apache-2.0
"""Makes the keystore of a secured ROS graph from an SROS2 policy, as `ros2 security` does, without a ROS installation.

Every enclave of the policy gets a certificate and permissions that allow what the policy names and deny the rest; all
is signed by one authority, whose private key should leave the robot. Files that are there are kept: run it again after
a change of the policy, and only the permissions are written anew.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from xml.dom import minidom

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    pkcs7,
)
from cryptography.x509.oid import NameOID

from qgf_core.config import config_root
from qgf_core.errors import ConfigError, QgfError
from qgf_core.files import write_atomic

SCHEMA = "http://www.omg.org/spec/DDS-SECURITY/20170901/"
"""Of the permissions and the governance: OMG DDS Security 1.1, sections 9.4.1.2 and 9.4.1.3."""
GOVERNANCE = """<?xml version="1.0" encoding="UTF-8"?>
<dds xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
     xsi:noNamespaceSchemaLocation="{schema}omg_shared_ca_governance.xsd">
  <domain_access_rules>
    <domain_rule>
      <domains><id_range><min>0</min><max>232</max></id_range></domains>
      <allow_unauthenticated_participants>false</allow_unauthenticated_participants>
      <enable_join_access_control>true</enable_join_access_control>
      <discovery_protection_kind>ENCRYPT</discovery_protection_kind>
      <liveliness_protection_kind>ENCRYPT</liveliness_protection_kind>
      <rtps_protection_kind>SIGN</rtps_protection_kind>
      <topic_access_rules>
        <topic_rule>
          <topic_expression>*</topic_expression>
          <enable_discovery_protection>true</enable_discovery_protection>
          <enable_liveliness_protection>true</enable_liveliness_protection>
          <enable_read_access_control>true</enable_read_access_control>
          <enable_write_access_control>true</enable_write_access_control>
          <metadata_protection_kind>ENCRYPT</metadata_protection_kind>
          <data_protection_kind>ENCRYPT</data_protection_kind>
        </topic_rule>
      </topic_access_rules>
    </domain_rule>
  </domain_access_rules>
</dds>
""".replace("{schema}", SCHEMA)
"""Everything encrypted, nobody without a certificate, every topic by permission."""

ACTION_SERVICES = ("cancel_goal", "get_result", "send_goal")
ACTION_TOPICS = ("feedback", "status")


class Rights:
    """What one enclave may do: DDS topic names to publish and to subscribe to."""

    def __init__(self) -> None:
        # Every ROS participant tells its nodes by this topic.
        self.publish, self.subscribe = {"ros_discovery_info"}, {"ros_discovery_info"}

    def add_service(self, name: str, serves: bool) -> None:
        """A service, by its absolute name without the first slash."""
        requests, replies = f"rq/{name}Request", f"rr/{name}Reply"
        self.publish.add(replies if serves else requests)
        self.subscribe.add(requests if serves else replies)

    def add_topics(self, names: list[str], publishes: bool) -> None:
        """Topics, by absolute names without the first slash."""
        (self.publish if publishes else self.subscribe).update(f"rt/{name}" for name in names)


def absolute(name: str, namespace: str, node: str) -> str:
    """A ROS name as DDS has it after its prefix: without the first slash."""
    space = namespace.strip("/")
    if name.startswith("~/"):
        name = f"{space}/{node}/{name[2:]}"
    elif not name.startswith("/"):
        name = f"{space}/{name}"
    return name.strip("/")


def read_policy(path: Path, namespace: str = "") -> dict[str, Rights]:
    """Rights by enclave.

    :param namespace: put in front of every profile's own, for one arm of several.
    :raises ConfigError: no policy, or one that says what is not known here.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise ConfigError(path, "", f"no policy ({error})", "give an SROS2 policy file") from error
    if root.tag != "policy" or root.get("version") != "0.2.0":
        raise ConfigError(path, "policy", f"<{root.tag}> {root.get('version')}", "give SROS2's policy version 0.2.0")
    enclaves: dict[str, Rights] = {}
    for enclave in root.iterfind("enclaves/enclave"):
        rights = enclaves.setdefault(namespace.rstrip("/") + str(enclave.get("path")), Rights())
        for profile in enclave.iterfind("profiles/profile"):
            space, node = namespace.rstrip("/") + str(profile.get("ns")), str(profile.get("node"))
            for block in profile:
                _add_block(rights, block, space, node, path)
    if not enclaves:
        raise ConfigError(path, "", "it has no enclave", "give an SROS2 policy file")
    return enclaves


def _add_block(rights: Rights, block: ElementTree.Element, space: str, node: str, path: Path) -> None:
    names = [absolute(str(item.text).strip(), space, node) for item in block]
    done = [word for word in block.attrib if block.get(word) == "ALLOW"]
    if len(done) != len(block.attrib) or not done:
        raise ConfigError(path, block.tag, str(block.attrib), "all that is not allowed is denied: leave it out")
    for word in done:
        known = {("topics", "publish"), ("topics", "subscribe"), ("services", "reply"), ("services", "request"),
                 ("actions", "execute"), ("actions", "call")}
        if (block.tag, word) not in known:
            raise ConfigError(path, block.tag, f"'{word}' is not known", "see SROS2's policy schema")
        if block.tag == "topics":
            rights.add_topics(names, word == "publish")
            continue
        serves = word in ("reply", "execute")
        for name in names:
            if block.tag == "services":
                rights.add_service(name, serves)
                continue
            for service in ACTION_SERVICES:
                rights.add_service(f"{name}/_action/{service}", serves)
            rights.add_topics([f"{name}/_action/{topic}" for topic in ACTION_TOPICS], serves)


def permissions(enclave: str, rights: Rights, domain: int, begin: datetime.datetime, end: datetime.datetime) -> bytes:
    """The enclave's permissions document."""
    root = ElementTree.Element("dds", {
        "xmlns:xsi": "http://www.w3.org/2001/XMLSchema-instance",
        "xsi:noNamespaceSchemaLocation": f"{SCHEMA}omg_shared_ca_permissions.xsd"})
    grant = ElementTree.SubElement(ElementTree.SubElement(root, "permissions"), "grant", name=enclave)
    ElementTree.SubElement(grant, "subject_name").text = f"CN={enclave}"
    validity = ElementTree.SubElement(grant, "validity")
    ElementTree.SubElement(validity, "not_before").text = f"{begin:%Y-%m-%dT%H:%M:%S}"
    ElementTree.SubElement(validity, "not_after").text = f"{end:%Y-%m-%dT%H:%M:%S}"
    rule = ElementTree.SubElement(grant, "allow_rule")
    ElementTree.SubElement(ElementTree.SubElement(rule, "domains"), "id").text = str(domain)
    for word, names in (("publish", rights.publish), ("subscribe", rights.subscribe)):
        topics = ElementTree.SubElement(ElementTree.SubElement(rule, word), "topics")
        for name in sorted(names):
            ElementTree.SubElement(topics, "topic").text = name
    ElementTree.SubElement(grant, "default").text = "DENY"
    return minidom.parseString(ElementTree.tostring(root)).toprettyxml(indent="  ", encoding="UTF-8")


class Authority:
    """Signs the graph's certificates and documents; made once and kept in the keystore.

    :raises ConfigError: its files are damaged.
    """

    def __init__(self, store: Path, begin: datetime.datetime, end: datetime.datetime) -> None:
        self._begin, self._end = begin, end
        key_path, certificate_path = store / "private/ca.key.pem", store / "public/ca.cert.pem"
        if not key_path.exists() and not certificate_path.exists():
            self._key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "qgf_authority")])
            self.certificate = self._certificate(name, name, self._key.public_key(), authority=True)
            write_key(key_path, self._key)
            write_atomic(certificate_path, self.certificate.public_bytes(Encoding.PEM))
        try:
            key = load_pem_private_key(key_path.read_bytes(), None)
            self.certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
        except (OSError, ValueError, TypeError) as error:
            remedy = "mend it from a copy, or give a new folder"
            raise ConfigError(store, "", f"its authority cannot be read ({error})", remedy) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != self.certificate.public_key():
            raise ConfigError(key_path, "", "it is not the key of the authority's certificate", "mend it from a copy")
        self._key = key

    def issue(self, name: str, key: ec.EllipticCurvePublicKey) -> x509.Certificate:
        """A certificate for an enclave."""
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        return self._certificate(subject, self.certificate.subject, key, authority=False)

    def _certificate(
        self, subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, authority: bool
    ) -> x509.Certificate:
        limits = x509.BasicConstraints(ca=authority, path_length=1 if authority else None)
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key)
                   .serial_number(x509.random_serial_number()).not_valid_before(self._begin)
                   .not_valid_after(self._end).add_extension(limits, critical=True))
        return builder.sign(self._key, hashes.SHA256())

    def sign(self, document: bytes) -> bytes:
        """The document as S/MIME with a detached signature, the form that DDS Security asks for."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(document)
        builder = builder.add_signer(self.certificate, self._key, hashes.SHA256())
        return builder.sign(Encoding.SMIME, [pkcs7.PKCS7Options.Text, pkcs7.PKCS7Options.DetachedSignature])


def write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """A private key, for its owner alone."""
    write_atomic(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), mode=0o600)


def make_keystore(store: Path, policy: Path, domain: int, namespace: str, days: int) -> list[str]:
    """Make or complete a keystore. Returns the enclaves. :raises QgfError: it cannot be written, or the policy read."""
    enclaves = read_policy(policy, namespace)
    begin = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    end = begin + datetime.timedelta(days=days)
    try:
        (store / "private").mkdir(parents=True, exist_ok=True)
        (store / "private").chmod(0o700)
    except OSError as error:
        raise ConfigError(store, "", f"cannot be written ({error.strerror})", "choose another folder") from error
    authority = Authority(store, begin, end)
    certificate = authority.certificate.public_bytes(Encoding.PEM)
    governance = authority.sign(GOVERNANCE.encode())
    write_atomic(store / "enclaves/governance.xml", GOVERNANCE.encode())
    write_atomic(store / "enclaves/governance.p7s", governance)
    for name, rights in enclaves.items():
        folder = store / "enclaves" / name.strip("/")
        if not (folder / "key.pem").exists() or not (folder / "cert.pem").exists():
            key = ec.generate_private_key(ec.SECP256R1())
            write_key(folder / "key.pem", key)
            write_atomic(folder / "cert.pem", authority.issue(name, key.public_key()).public_bytes(Encoding.PEM))
        document = permissions(name, rights, domain, begin, end)
        for file, content in (("identity_ca.cert.pem", certificate), ("permissions_ca.cert.pem", certificate),
                              ("governance.p7s", governance), ("permissions.xml", document),
                              ("permissions.p7s", authority.sign(document))):
            write_atomic(folder / file, content)
    return list(enclaves)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(
        prog="qgf keystore",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=f"{__doc__}\nexample:  ./qgf keystore keys/graph --domain 42, then in every shell of the graph:\n"
        "  export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce ROS_SECURITY_KEYSTORE=$PWD/keys/graph\n"
        "  ./qgf run qgf_policy policy_node --ros-args --enclave /policy_node ...",
    )
    parser.add_argument("keystore", type=Path, help="folder to make or to complete")
    parser.add_argument("--policy", type=Path, help="SROS2 policy (default: config/security/qgf.policy.xml)")
    parser.add_argument("--domain", type=int, default=0, help="the one ROS_DOMAIN_ID that is permitted (default: 0)")
    parser.add_argument("--namespace", default="", help="of the arm, as /left; enclaves and topics lie in it")
    parser.add_argument("--days", type=int, default=3650, help="how long all of it holds (default: 3650)")
    options = parser.parse_args()
    try:
        if not 0 <= options.domain <= 232 or not 1 <= options.days <= 36500:
            raise QgfError("keystore: --domain must lie in 0 .. 232, --days in 1 .. 36500; correct the value")
        if options.namespace and not options.namespace.startswith("/"):
            raise QgfError(f"keystore: --namespace {options.namespace}: must begin with /; give /{options.namespace}")
        policy = options.policy or config_root() / "security" / "qgf.policy.xml"
        names = make_keystore(options.keystore, policy, options.domain, options.namespace, options.days)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    print(f"{options.keystore}: enclaves {', '.join(names)} in domain {options.domain}, until in {options.days} days")
    print(f"{options.keystore}/private holds the authority's key: keep it off the robot; a robot needs enclaves/ alone")
    return 0


if __name__ == "__main__":
    sys.exit(main())
