# SPDX-License-Identifier: Apache-2.0
"""`./qgf keygen`, `./qgf sign` and `./qgf verify`: who made a bundle."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from qgf_core.errors import QgfError
from qgf_core.signing import PRIVATE, PUBLIC, load_private_key, load_trusted_keys, make_keys, sign_bundle


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="qgf", description="Sign bundles, and check who signed them.")
    commands = parser.add_subparsers(dest="command", required=True)

    keygen = commands.add_parser(
        "keygen",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Make a pair of Ed25519 keys: NAME.key signs and stays with you (mode 0600, not encrypted),\n"
        "NAME.pub goes to the robots, into the folder that policy_node's parameter trusted_keys names.\n\n"
        "example:  ./qgf keygen --out keys/lab",
    )
    keygen.add_argument("--out", type=Path, default=Path("keys/qgf"), metavar="NAME",
                        help=f"writes NAME{PRIVATE} and NAME{PUBLIC}; refused if there is one (default: keys/qgf)")

    sign = commands.add_parser(
        "sign",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Load a bundle with all checks, then sign it. An earlier signature is replaced.\n\n"
        "example:  ./qgf sign runs/myarm/bundle.pt --key keys/lab.key",
    )
    sign.add_argument("bundle", type=Path, help="the bundle.pt to sign")
    sign.add_argument("--key", type=Path, required=True, help="the private key, NAME.key of ./qgf keygen")
    sign.add_argument("--out", type=Path,
                      help="write the signed bundle there (default: in place, whole or not at all)")

    verify = commands.add_parser(
        "verify",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Check a bundle as policy_node does before it runs it: seal, signature, archive, code, manifest\n"
        "and golden probes. Exits with 2 and one line if anything is wrong.\n\n"
        "example:  ./qgf verify runs/myarm/bundle.pt --trusted-keys keys",
    )
    verify.add_argument("bundle", type=Path, help="the bundle.pt to check")
    verify.add_argument("--trusted-keys", default="", metavar="DIR",
                        help="*.pub files or folders of them, ':' between: one of them must have signed it "
                             "(default: unsigned will do)")
    verify.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def _keygen(options: argparse.Namespace) -> None:
    name = make_keys(options.out)
    print(f"{options.out}{PRIVATE}: the private key {name}; keep it to yourself, and a copy of it")
    print(f"{options.out}{PUBLIC}: its public key; put it into the robots' folder of trusted keys")


def _sign(options: argparse.Namespace) -> None:
    key = load_private_key(options.key)
    from qgf_core.bundle import load_bundle  # torch takes a second, which keys and --help do not need

    load_bundle(options.bundle)  # a signature vouches for a bundle that runs
    out = options.out or options.bundle
    print(f"{out}: signed with key {sign_bundle(options.bundle, key, out)}")


def _verify(options: argparse.Namespace) -> None:
    from qgf_core.bundle import load_bundle  # torch takes a second, which keys and --help do not need

    bundle = load_bundle(options.bundle, load_trusted_keys(options.trusted_keys) if options.trusted_keys else None)
    manifest = bundle.manifest
    if options.json:
        print(json.dumps({"bundle": str(options.bundle), "sha256": bundle.sha256, "signer": bundle.signer,
                          "trusted": bool(options.trusted_keys), "robot": manifest.robot.name, "task": manifest.task}))
        return
    signed = f"signed by {bundle.signer}" if bundle.signer else "not signed"
    if bundle.signer and not options.trusted_keys:
        signed += ", whoever that is: --trusted-keys tells"
    print(f"{options.bundle}: good, {signed}; {manifest.task} for {manifest.robot.name}, SHA-256 {bundle.sha256}")


def main() -> int:
    """Entry point."""
    options = _parser().parse_args()
    try:
        {"keygen": _keygen, "sign": _sign, "verify": _verify}[options.command](options)
    except QgfError as error:
        print(f"qgf: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
