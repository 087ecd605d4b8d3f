"""Token ids as model files tell them: one, several, or none."""


def token_ids(value: object) -> tuple[int, ...]:
    """The ids in a field such as `eos_token_id`; none where it is null.

    Raises:
        ValueError: it is neither a token id nor a list of them.
    """
    if value is None:
        return ()
    ids = value if isinstance(value, list) else [value]
    if any(type(each) is not int or each < 0 for each in ids):
        raise ValueError(f"{value!r} is neither a token id nor a list of them")
    return tuple(ids)
