"""How axes of an op's inputs and outputs couple: the maps, the rules by family, their readers."""
