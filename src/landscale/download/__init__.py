"""Download official archives: their files (`catalogue`), one file over an unreliable connection (`transfer`), all (`archive`)."""
