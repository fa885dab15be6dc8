"""Start of the frozen elevated helper; pkexec runs it, see packaging/linux/org.keyfit.policy."""

import sys

from keyfit.helpermain import main

sys.exit(main())
