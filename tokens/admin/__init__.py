"""What people and their programs do to tokens: revoke, block, grant, look into the audit."""
