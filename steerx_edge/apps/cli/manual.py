"""What the help says after the options: examples, environment variables, exit status."""

from __future__ import annotations

_EXAMPLES = {
    "learn": """
        # learn from a file of texts
        steerx-edge learn sent.jsonl -o me.json
        # with a model of your choice
        steerx-edge learn sent.jsonl -o me.json -m model.gguf
        # add what you have written since
        steerx-edge learn --add sent.jsonl -o me.json
        # a memory that reveals less
        steerx-edge learn sent.jsonl -o me.json --memory shared
    """,
    "generate": """
        # answer a request in your style
        steerx-edge generate --profile me.json -p "Write to my landlord."
        # see what the profile changes
        steerx-edge generate --profile me.json -p "Write to Ana." --compare
        # answer a mail from standard input, with similar texts in the prompt
        steerx-edge generate --profile me.json -p - --history sent.jsonl < mail.txt
    """,
    "chat": """
        # chat; /help lists the commands
        steerx-edge chat --profile me.json
        # with half the strength, and your most relevant texts in the prompt
        steerx-edge chat --profile me.json --strength 0.5 --history sent.jsonl
    """,
    "serve": """
        # serve every profile of a folder on http://127.0.0.1:8080
        steerx-edge serve --profiles profiles
        # let other machines in that have a key
        steerx-edge serve --profiles profiles --host 0.0.0.0 --api-key KEY
    """,
    "evaluate": """
        # one person: the last fifth of the texts is held out
        steerx-edge evaluate sent.jsonl -o out --no-generate
        # many people, four at a time
        steerx-edge evaluate authors.jsonl -o out --processes 4 -t 1
    """,
    "forget": """
        # delete the memory; the rest of the profile stays
        steerx-edge forget --profile me.json
        # remove some texts from the memory
        steerx-edge forget --profile me.json --text email.jsonl
    """,
}

NOTES = """
Environment variables:

\b
STEERX_EDGE_MODEL      the model to use if -m is not given
STEERX_EDGE_USER_PATH  folder for unfinished work of learn
LLAMA_ARG_THREADS, LLAMA_ARG_N_GPU_LAYERS, LLAMA_ARG_CTX_SIZE,
LLAMA_ARG_N_PREDICT, LLAMA_ARG_HOST, LLAMA_ARG_PORT,
LLAMA_API_KEY          as in llama.cpp

Exit status:

\b
0    success
1    an error, named in one sentence
2    wrong usage
130  interrupted with Ctrl-C

Generated text goes to standard output, everything else to standard error.
"""


def examples(command: str) -> str:
    """Return the examples of a command, as click prints them after the options."""
    lines = [line.strip() for line in _EXAMPLES.get(command, "").strip().splitlines()]
    return "\n".join(["Examples:", "", "\b", *lines]) if lines else ""
