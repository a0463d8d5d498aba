"""The base of every group of settings: frozen values, unknown keys refused."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A group of settings; `key:` with nothing below it means the defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_means_defaults(cls, data: object) -> object:
        return {} if data is None else data
