"""A module that cannot be imported: a handler whose init fails."""

import sys

sys.stdout.write("about to fail\n")
raise RuntimeError("no model here")
