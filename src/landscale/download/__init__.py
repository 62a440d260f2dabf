"""Download official archives. `catalogue`: their files. `transfer`: download one file. `archive`: download all of an archive."""
