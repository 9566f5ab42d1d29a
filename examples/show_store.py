"""Print what a store of embeddings holds.

python examples/show_store.py embeddings.parquet
"""

import sys

from avex import open_store

store = open_store(sys.argv[1])
values = store.to_numpy()
header = store.header
print(f"{len(store)} embeddings of {values.shape[1]} numbers, from {len(store.recordings())} recordings")
print(
    f"model {header.card}, windows of {header.window_s:g} s every {header.hop_s:g} s at {header.sample_rate} Hz"
)
print(f"the first begins {', '.join(f'{value:.4f}' for value in values[0, :4])}")
