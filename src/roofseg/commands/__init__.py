"""The subcommands of `roofseg`: each has ``add_arguments(parser)`` and ``main(args)``."""
