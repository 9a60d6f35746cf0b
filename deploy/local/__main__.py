"""`python -m deploy.local demo` and `… up`: the commands of that name of `neuronetz-gateway`, without the others."""

import click

from deploy.local.commands import demo, up

if __name__ == "__main__":
    click.Group("deploy.local", commands=[up, demo], help="Run the whole gateway on this machine.")()
