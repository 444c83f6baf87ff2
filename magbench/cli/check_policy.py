"""`magbench check-policy METHOD`."""

from dataclasses import asdict

import click

from magbench.cli import console


@click.command("check-policy")
@click.argument("method")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(method: str, as_json: bool) -> int:
    """Check that a cache policy keeps the contract: ./file.py:Class, or a method's name; parameters may follow.

    Runs on a small model of random weights, in seconds. Exit code 1 if a check failed.
    """
    from magbench.runners.check_policy import check_policy
    from magbench.runners.methods import parse_method

    bound = parse_method(method)
    checks = check_policy(bound)
    failed = [check for check in checks if not check.ok]
    if as_json:
        console.dump({"method": bound.label, "ok": not failed, "checks": [asdict(check) for check in checks]})
        return 1 if failed else 0
    console.say(bound.label)
    for check in checks:
        kept = f"{check.promise} ({check.found})" if check.found else check.promise
        console.say(f"  {'ok' if check.ok else 'FAILED':<6}  {check.name:<11}  {kept if check.ok else check.found}")
    if not checks[0].ok:
        console.say("nothing else can be checked until it runs")
    else:
        console.say(f"{len(failed)} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed")
    return 1 if failed else 0
