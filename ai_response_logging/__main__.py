"""``python -m ai_response_logging`` is ``ai-responses``."""

from .cli import main

if __name__ == "__main__":
    main()
