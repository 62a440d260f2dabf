"""The commands of `landscale`, one file each.

A file adds its command to the parser; when the command runs, it imports what it needs and calls it. Heavy libraries are
imported inside the run functions, so that `landscale --help` stays fast.

Commands of other packages are found by the entry point group `landscale.commands`: a module with a function
`add_command(add: AddCommand)`, see `command.AddCommand`.
"""
