"""What the networks cost: the zoo as a table, and measured on a machine."""
