"""A stage is one function in one file; the command line, the Python API and the help follow from it."""

# Each is a function of its name in a module of its name: `sequela.NAME` in Python, `sequela NAME` on the command line.
STAGES = (
    "demo",
    "ingest",
    "tokenize",
    "train",
    "scale",
    "simulate",
    "calibrate",
    "predict",
    "whatif",
    "evaluate",
    "embed",
    "probe",
    "report",
    "tasks",
)
