"""`landscale benchmark`: measure this machine, networks and encoders. Its subcommands are in benchmark_*.py."""

from __future__ import annotations

from importlib import import_module

from landscale.commands.command import AddCommand, command_adder

SUBCOMMANDS = ("benchmark_zoo", "benchmark_learning", "benchmark_ranks", "benchmark_transfer")


def add_command(add: AddCommand) -> None:
    parser = add(
        "benchmark",
        lambda _: 0,  # never runs: argparse requires a subcommand
        "measure networks, training on several ranks, or encoders with few labels",
        "landscale benchmark zoo wide_resnet_eca_b4 resnet50",
    )
    add_subcommand = command_adder(parser, metavar="WHAT", dest="subcommand")
    for name in SUBCOMMANDS:
        import_module(f"landscale.commands.{name}").add_command(add_subcommand)
