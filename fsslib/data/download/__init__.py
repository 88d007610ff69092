"""Downloads, only when asked for: where the archives are (`sources`), `fetch`, `unpack`, and locks."""
