"""`python -m medbook` is the command `medbook`."""
from medbook.cli import main

if __name__ == "__main__":
    main()
