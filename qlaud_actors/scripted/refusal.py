"""A request that the vendor does not serve: raised anywhere, spelled by the wire."""


class Refusal(Exception):
    """An HTTP error answer. `param` and `code` appear on the OpenAI wire only.

    `retry_after` is in seconds.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after
