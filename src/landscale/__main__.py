import sys

from landscale.cli import main

sys.exit(main())
