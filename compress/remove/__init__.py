"""How what was chosen goes: at once (hard) or by decay while the rest trains (soft)."""
