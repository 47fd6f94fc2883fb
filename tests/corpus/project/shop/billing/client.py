class Client:
    def get(self, number):
        raise ValueError("no invoice %d" % number)
