"""llama.cpp's server of a GGUF file, until standard input ends; prints its address. Needs xllamacpp."""
import sys, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.warmup = sys.argv[1], 8192, 8, False
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
