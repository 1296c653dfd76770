# SPDX-License-Identifier: Apache-2.0
"""The style sheet of the report, light and dark."""

CSS = """\
:root { color-scheme: light dark; --ink: #1f2328; --muted: #59636e; --line: #d9dee3; --page: #f6f8fa; --card: #ffffff;
        --plain: #b84f00; --stabilised: #0072B2; --kept: #1a7f37; --broken: #b3261e; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --muted: #9198a1; --line: #30363d; --page: #0d1117; --card: #161b22;
          --plain: #F0803C; --stabilised: #56A9E0; --kept: #57ab5a; --broken: #f47067; }
}
* { box-sizing: border-box; }
body {
  margin: 0;
  background: var(--page);
  color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 {
  font-size: 1.9rem;
  line-height: 1.2;
  margin: 0 0 .5rem;
  letter-spacing: -.01em;
}
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
.lead { color: var(--muted); margin: 0 0 1.5rem; }
.plain { color: var(--plain); }
.stabilised { color: var(--stabilised); }
section {
  background: var(--card);
  border: 1px solid var(--line);
  border-radius: 10px;
  padding: 1.25rem 1.4rem;
  margin: 1.25rem 0;
  overflow-x: auto;
}
figure { margin: 0; }
img { width: 100%; height: auto; display: block; }
figcaption, .note {
  color: var(--muted);
  font-size: .9rem;
  margin-top: .75rem;
  max-width: 85ch;
}
.note { margin-bottom: 0; }
.tiles {
  list-style: none;
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(210px, 1fr));
  gap: 1rem;
  padding: 0;
  margin: 0;
}
.tiles li {
  background: var(--card);
  border: 1px solid var(--line);
  border-radius: 10px;
  padding: .9rem 1.1rem;
  color: var(--muted);
  font-size: .9rem;
  line-height: 1.35;
}
.tiles b {
  display: block;
  color: var(--ink);
  font-size: 1.9rem;
  line-height: 1.25;
  font-variant-numeric: tabular-nums;
}
table {
  border-collapse: collapse;
  width: 100%;
  table-layout: fixed;
  min-width: 760px;
  font-variant-numeric: tabular-nums;
  margin-bottom: 1.4rem;
}
th, td {
  padding: .34rem .7rem;
  border-bottom: 1px solid var(--line);
  vertical-align: top;
}
th { text-align: left; font-weight: 500; }
td { text-align: right; white-space: nowrap; }
thead th, thead td { font-weight: 650; border-bottom: 2px solid var(--line); }
thead th { width: 36%; }
thead td { width: 13%; }
thead td:nth-child(4) { width: 10%; }
thead td.bound { width: 28%; }
thead td:nth-child(2) { color: var(--plain); }
thead td:nth-child(3) { color: var(--stabilised); }
.bound { text-align: left; font-size: .88rem; padding-left: 1.4rem; }
.unit { color: var(--muted); font-size: .85rem; }
.kept { color: var(--kept); }
.broken { color: var(--broken); }
.facts { margin: 0; table-layout: auto; min-width: 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts th { width: 9rem; color: var(--muted); }
"""
