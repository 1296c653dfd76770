# SPDX-License-Identifier: Apache-2.0
"""`./qgf audit`: pins, licences, and an advisory database that is a real server here, with answers at will."""

from __future__ import annotations

import http.server
import importlib.util
import json
import re
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(scope="module")
def audit():
    """scripts/audit.py."""
    specification = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def database():
    """A server in the form of OSV's querybatch; `answers` maps a package to advisories, or is raw text."""
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            self.asked.extend((q["package"]["ecosystem"], q["package"]["name"], q["version"]) for q in queries)
            if isinstance(self.answers, str):
                body = self.answers
            else:
                body = json.dumps({"results": [{"vulns": [{"id": i} for i in self.answers[q["package"]["name"]]]}
                                               if q["package"]["name"] in self.answers else {} for q in queries]})
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *arguments):
            pass

    Handler.answers, Handler.asked = {}, []
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Handler, f"http://127.0.0.1:{server.server_port}/v1/querybatch"
    server.shutdown()
    server.server_close()


def test_pins_and_licences_of_this_environment_are_good(audit):
    found = audit.installed()
    assert {"torch", "cryptography", "numpy", "ros-rclpy"} <= set(found) or "rclpy" not in found
    findings = [*audit.check_pins(found), *audit.check_licences(found)]
    assert [f for f in findings if f.level == "fail"] == []


def test_every_installed_version_is_asked_for_and_advisories_are_told(audit, database):
    handler, url = database
    found = audit.installed()
    handler.answers = {"torch": ["GHSA-1", "PYSEC-2"]}
    findings = list(audit.check_advisories(found, url))
    assert set(handler.asked) == {("PyPI", name, d.version) for name, d in found.items()}
    assert [(f.level, f.found) for f in findings] == [("fail", f"torch {found['torch'].version}: GHSA-1, PYSEC-2")]
    handler.answers = {}
    assert [f.level for f in audit.check_advisories(found, url)] == ["ok"]


def test_a_database_that_does_not_answer_is_no_clean_bill(audit, database):
    handler, url = database
    for handler.answers in ("", "[]", '{"results": [{}]}', "{"):
        (finding,) = audit.check_advisories(audit.installed(), url)
        assert finding.level == "fail" and "not asked" in finding.found
    (finding,) = audit.check_advisories(audit.installed(), "http://127.0.0.1:9/")
    assert finding.level == "fail" and "refused" in finding.found


def test_loose_pins_foreign_versions_and_unknown_licences_fail(audit, monkeypatch, tmp_path):
    class Distribution:
        version, requires = "1.0", ("numpy>=99",)

        def __init__(self, **about):
            self.metadata = self
            self.about = {"Name": "strange", **about}

        def get(self, key):
            return self.about.get(key)

        def get_all(self, key):
            return self.about.get(key)

        def __getitem__(self, key):
            return self.about[key]

    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "robot.txt").write_text("strange==2.0\nloose>=1  # why\n")
    monkeypatch.setattr(audit, "ROOT", tmp_path)
    found = {"strange": Distribution()}
    told = [(f.level, f.found) for f in audit.check_pins(found)]
    assert told == [("fail", "not pinned: loose>=1 (robot.txt)"), ("fail", "installed in another version: strange 1.0"),
                    ("warn", "strange wants numpy>=99")]
    classifier = "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"
    for about, words in (({}, "not told by strange"), ({"License": "AGPL-3.0"}, "copyleft"),
                         ({"License-Expression": "GPL-2.0-only"}, "copyleft"),
                         ({"Classifier": [classifier]}, "copyleft"), ({"License": "Shareware"}, "not on the list")):
        (finding,) = audit.check_licences({"strange": Distribution(**about)})
        assert finding.level == "fail" and words in finding.found
    for text in ("LGPL-3.0", "GNU Lesser General Public License v3 (LGPLv3)", "MIT", "Apache License 2.0"):
        assert [f.level for f in audit.check_licences({"strange": Distribution(License=text)})] == ["ok"]


def test_the_page_of_licences_lists_every_requirement(audit):
    """As pinned; the page is generated, and is to be generated again when a pin changes."""
    rows = dict(re.findall(r"^\| (\S+) \| (\S+) \| .+ \|", (ROOT / "docs" / "licences.md").read_text(), re.M))
    for name, pins in audit.requirements(everywhere=True).items():
        assert any(r.specifier.contains(rows[name], prereleases=True) for r, _ in pins), name
    assert "not told" not in (ROOT / "docs" / "licences.md").read_text()
