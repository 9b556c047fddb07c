"""``python -m ssl_framework``: the same as ``ssl-framework``."""

from ssl_framework.cli import main

if __name__ == "__main__":
    main()
