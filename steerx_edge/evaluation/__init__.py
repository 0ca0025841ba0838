"""How much a profile helps on texts it has not seen, and how much of that is the person's own.

Each user's held-out texts are scored, and written anew by the model, under several *arms*: without
anything, with the user's texts or description in the prompt, with the user's own profile, and with
profiles that are not the user's: a *generic* one, learned in the same way from as many items of
other users, and a *swapped* one, of a single other user. What the generic profile gives as well is
the task's and not the person's; own minus generic is the personal gain.

A *method* is a name with settings of `learn`. Nothing here knows what is inside a profile, except
`steered`.
"""

from steerx_edge.evaluation.evaluator import BASELINES, Row
from steerx_edge.evaluation.figures import CONTRASTS, WORSE, Evaluation, Figure, Line
from steerx_edge.evaluation.run import METHODS, ROWS_FILE, SUMMARY_FILE, evaluate
from steerx_edge.evaluation.sample import STRENGTHS, Plan, Sample, read_sample

__all__ = [
    "BASELINES",
    "CONTRASTS",
    "METHODS",
    "ROWS_FILE",
    "STRENGTHS",
    "SUMMARY_FILE",
    "WORSE",
    "Evaluation",
    "Figure",
    "Line",
    "Plan",
    "Row",
    "Sample",
    "evaluate",
    "read_sample",
]
