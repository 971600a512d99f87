"""What a page in Markdown shows: what is typed and what comes back, and files.

In a block that begins with ```sh a line that begins with "$ " is typed, and what follows up to the
next one is what must come back; a line "..." stands for any lines, and "..." within a line for any
text. A block of another language is a file where the line above it is its name: `name`:
"""

import re


def blocks(text):
    """(language, name, body) of every block; name is None where it is no file."""
    found = re.findall(r"(?ms)^(?:`([\w.-]+)`:\n\n?)?```(\w+)\n(.*?)^```$", text)
    return [(language, name or None, body) for name, language, body in found]


def commands(block):
    """(command, the lines expected) of everything typed in a block."""
    found = []
    for line in block.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return found


def pattern(lines):
    """A regular expression for all of what was said, with the lines' "..."."""
    parts = []
    for line in lines:
        if line.strip() == "...":
            parts.append(r"(?:.*\n)*?")
        else:
            parts.append(r"[^\n]*".join(re.escape(part) for part in line.split("...")) + r"\n")
    return r"\A" + "".join(parts) + r"\Z"


def tidied(said):
    """What a command said, as a page would show it."""
    return "\n".join(line.rstrip() for line in said.strip().splitlines()) + "\n"
