"""`python -m tubelet`, which is also how torchrun starts it."""

from tubelet.cli.main import main

main()
