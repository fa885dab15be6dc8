"""Names in certificates as text (RFC 4514): the one form in which brand data and reports write them."""


def name_fault(text: str) -> str:
    """Why a text is not a whole name as certificates' names are told; empty if it is.

    Order, spelling and case count, since names are compared whole (security B2). There are no spaces around the commas
    between the parts; a comma inside a part is written "\\,".
    """
    from cryptography.x509 import Name

    try:
        told = Name.from_rfc4514_string(text).rfc4514_string()
    except ValueError:
        return "expected a whole name as RFC 4514 writes it, such as 'CN=Acme Ltd.,O=Acme Ltd.,C=US'"
    return "" if told == text else f"expected the name in the form {told!a}"
