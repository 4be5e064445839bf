"""What the documents say, read by machine: README's two commands and the changelog's fragments."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("data-safety", "feature", "change", "fix", "deprecation", "removal")
MARKERS = ("demo-command", "test-command")


def marked_command(text: str, marker: str) -> str:
    """Return the one ```sh block right after ``<!-- marker -->``; ValueError unless there is exactly one."""
    blocks = re.findall(rf"<!-- {re.escape(marker)} -->\s*```sh\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    if len(blocks) != 1:
        msg = f"README.md has {len(blocks)} ```sh blocks right after <!-- {marker} -->, wanted 1"
        raise ValueError(msg)
    return str(blocks[0])


def bad_fragments(folder: Path) -> list[str]:
    """Say which changelog fragments are misnamed or empty."""
    fragments = [path for path in sorted(folder.glob("*")) if path.name != "README.md"]
    name = re.compile(rf"\d+\.({'|'.join(KINDS)})\.md")
    return [
        f"{path.relative_to(ROOT)}: wanted <issue>.<kind>.md, kind one of {', '.join(KINDS)}, and not empty"
        for path in fragments
        if not name.fullmatch(path.name) or not path.read_text("utf-8").strip()
    ]


def complaints() -> list[str]:
    """Collect everything that is wrong."""
    found = bad_fragments(ROOT / "docs" / "changelog.d")
    readme = (ROOT / "README.md").read_text("utf-8")
    for marker in MARKERS:
        try:
            marked_command(readme, marker)
        except ValueError as error:
            found.append(str(error))
    return found


def main() -> int:
    """Print a marked command, or check fragments and markers; 0 when well, 1 when not."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("check", help="fragments and markers")
    commands.add_parser("command", help="print README's marked command").add_argument("marker", choices=MARKERS)
    arguments = parser.parse_args()
    if arguments.command == "command":
        print(marked_command((ROOT / "README.md").read_text("utf-8"), arguments.marker), end="")
        return 0
    found = complaints()
    print("\n".join(found) or "documents: fragments and markers are well")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
