"""Settings from flags, environment and a YAML file, checked by pydantic; what is wrong is said with its file and line.

A program declares its settings as a pydantic model (frozen, `extra="forbid"`), nested where the file is nested:

    class DiscoverySettings(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        endpoint: str
        timeout: Annotated[Duration, Field(gt=0)] = 10.0

    class AgentSettings(BaseModel):
        model_config = ConfigDict(frozen=True, extra="forbid")
        discovery: DiscoverySettings

    settings = load(AgentSettings, {"discovery": {"endpoint": flag}}, Path("coral.yaml"))

The value of a `SecretStr` is in no message.
"""

from discovery.settings.duration import Duration, parse_duration
from discovery.settings.loading import load

__all__ = ["Duration", "load", "parse_duration"]
