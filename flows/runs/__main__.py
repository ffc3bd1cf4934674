"""`python -m flows.runs` lists and removes what runs left on this machine."""

import sys

from flows.runs.records import main

sys.exit(main())
