"""`python -m tubelet`, which is also how torchrun starts it."""

from tubelet.cli import main

main()
