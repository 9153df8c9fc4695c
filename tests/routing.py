routing = []
