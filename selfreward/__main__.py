"""`selfreward` and `python -m selfreward`."""

import sys

from selfreward import signals


def main() -> int:
    """Run the command line. Signals are handled from here on, also while modules are imported and at exit."""
    signals.exit_at_once()
    from selfreward.cli import main as command_line

    code = command_line()
    signals.exit_at_once(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
