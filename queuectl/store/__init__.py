"""The stores: where jobs live. `base` is the contract, `file` the default one."""
