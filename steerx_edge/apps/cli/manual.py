"""What the help says after the options: examples, environment variables, exit status."""

from __future__ import annotations

_EXAMPLES = {
    "read": """
        # what is kept of a mailbox, and what is not
        steerx-edge read ~/Mail/Sent
        # of a chat, where you are Kim
        steerx-edge read WhatsApp.zip --me "Kim"
        # as JSON lines, to look at or to edit
        steerx-edge read ~/Mail/Sent -o sent.jsonl
    """,
    "show": """
        # what a profile holds
        steerx-edge show me.json
        # as a page for the browser
        steerx-edge show me.json --html me.html
        # what two profiles have in common
        steerx-edge show me.json --with colleague.json
    """,
    "edit": """
        # no answer contains this word
        steerx-edge edit me.json --never cheers
        # the profile adds nothing for a word
        steerx-edge edit me.json --drop kettle
        # the description and the words in your editor
        steerx-edge edit me.json
    """,
    "diff": """
        # what learning again has changed
        steerx-edge diff before.json me.json
    """,
    "models": """
        # the models on this computer, for a program
        steerx-edge models --json
    """,
    "doctor": """
        # whether everything works, and how long learning will take
        steerx-edge doctor sent.jsonl
    """,
    "explain": """
        # your texts, word by word, as a page
        steerx-edge explain sent.jsonl --profile me.json --html texts.html
        # where each token of an answer comes from
        steerx-edge explain -p "Write to Ana." --profile me.json
    """,
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
    "feedback": """
        # what you made of the draft that generate --keep-drafts kept
        steerx-edge feedback me.json --final sent.txt
        # what you made of a text from any other program
        steerx-edge feedback me.json --proposed draft.txt --final sent.txt --request "Write to Ana."
        # learn from all drafts that you edited
        steerx-edge feedback me.json --apply
    """,
    "forget": """
        # delete the memory; the rest of the profile stays
        steerx-edge forget --profile me.json
        # remove some texts from the memory
        steerx-edge forget --profile me.json --text email.jsonl
    """,
    "export": """
        # for llama.cpp: llama-server -m model.gguf --control-vector me.gguf
        steerx-edge export me.json me.gguf
        # of a profile with several models
        steerx-edge export me.json me.gguf -m model.gguf
    """,
    "import": """
        # a control vector of any program, for one model
        steerx-edge import vector.gguf -o vector.json -m model.gguf
    """,
    "combine": """
        # mostly the first
        steerx-edge combine me.json vector.json --weights 0.7,0.3 -o both.json
    """,
}

NOTES = """
Environment variables:

\b
STEERX_EDGE_MODEL      the model to use if -m is not given
STEERX_EDGE_USER_PATH  folder for unfinished work of learn
STEERX_EDGE_PROFILES   folder of the profiles that the plugin for llm offers
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
