"""How tasks run: what passes ask of an engine, and the engine of this process. `features.spark` has the other one."""
