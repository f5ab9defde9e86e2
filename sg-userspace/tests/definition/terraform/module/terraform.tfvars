environment = "Test"
tiers = {
  web = { ports = [80, "443"], open = true, description = "front" }
  db  = { ports = [5432] }
}
