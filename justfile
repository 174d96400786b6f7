# Short names for what is typed often; `just` lists them.

default:
    @just --list

# A true GRPO run of the embedded model, then base against trained on held-out prompts.
train *arguments:
    cargo run --release -- train sample-data/invoice {{arguments}}

# The program into Cargo's bin folder, its manual page and completions below ~/.local. With a CUDA toolkit: just install --features cuda
install *arguments:
    cargo install --locked --path . {{arguments}}
    scripts/shell-files "${CARGO_INSTALL_ROOT:-${CARGO_HOME:-$HOME/.cargo}}/bin/grpo-tui" "$HOME/.local"

# An archive of the program, tried in an empty root; for GPUs: just release --cuda
release *arguments:
    scripts/release {{arguments}}

# All tests.
test *arguments:
    cargo test {{arguments}}

# Everything that has to hold before a change is taken.
check:
    .ci/run

# Format the sources.
format:
    cargo fmt

# Speed of this machine with the embedded model.
bench:
    cargo run --release -p grpo-tui-lab -- bench cpu --json

# Numbers and prompts of transformers and JAX for the parity tests; needs Python with torch, transformers and jax.
golden:
    python3 scripts/golden/decoder_logits.py tests/parity
    python3 scripts/golden/chat_templates.py tests/parity
    python3 scripts/golden/policy_losses.py tests/parity
    python3 scripts/golden/trajectories.py tests/parity
    python3 scripts/golden/per_part.py tests/parity
