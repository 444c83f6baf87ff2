"""The table of docs/budget.md, from the policies themselves: `python docs/budget_table.py`."""

from pathlib import Path

from magbench.runners.budgets import Spending
from magbench.runners.methods import METHODS, bind

PAGE = Path(__file__).parent / "budget.md"
START, END = "<!-- table: docs/budget_table.py -->", "<!-- end of table -->"
SHOWN = (6, 9, 12, 18)


def table() -> str:
    """Every method: its own budget, those it can use, what some of them set, and how it spends them in words."""
    columns = ["method", "its own", "N can be", *(f"N = {frames}" for frames in SHOWN)]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    told: dict[str, list[str]] = {}
    for name in METHODS:
        spending = Spending(name)
        usable = f"{spending.smallest} or more" if spending.smallest else "anything, it keeps its own"
        cells = [f"`{name}`", spending.own, usable, *(_sets(name, frames) for frames in SHOWN)]
        lines.append(f"| {' | '.join(cells)} |")
        told.setdefault(spending.how, []).append(f"`{name}`")
    return "\n".join([*lines, "", *(f"* {', '.join(names)}: {how}" for how, names in told.items()), ""])


def _sets(name: str, budget: int) -> str:
    bound = bind(name, budget)
    if bound.refusal:
        return "refused"
    return ", ".join(f"{key} {bound.parameters[key]}" for key in type(bound.policy).spend(budget)) or "–"


def main() -> None:
    """Rewrite the table."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(START)
    PAGE.write_text(f"{before}{START}\n\n{table()}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
