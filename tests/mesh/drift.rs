//! What the files for meshes have of Moorage's bootstrap is what the bootstrap has.
