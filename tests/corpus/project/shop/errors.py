class OrderError(Exception):
    pass


def own_class():
    class Local(Exception):
        pass

    return Local
