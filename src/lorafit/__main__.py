"""`python -m lorafit`: the same as the command `lorafit`."""

from lorafit.cli import main

if __name__ == "__main__":
    main()
